// Portals on libraries of others, each as its own documentation has it: argv[2] says
// which, and is JSON with the issuer, the client and where to listen. Who opens /login
// is signed in, and sees at / what the portal learned.
import { createServer } from 'node:http'

const { library, issuer, id, secret, at } = JSON.parse(process.argv[2])
const port = new URL(at).port

async function openidClient(app) {
  const client = await import('openid-client')
  const config = await client.discovery(new URL(issuer), id, secret)
  const redirect_uri = `${at}/callback`
  let verifier, state
  app.get('/login', async (req, res) => {
    verifier = client.randomPKCECodeVerifier()
    state = client.randomState()
    res.redirect(client.buildAuthorizationUrl(config, {
      redirect_uri, scope: 'openid email', state,
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    }).href)
  })
  app.get('/callback', async (req, res) => {
    const tokens = await client.authorizationCodeGrant(config, new URL(req.url, at), { pkceCodeVerifier: verifier, expectedState: state })
    res.json(await client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub))
  })
}

async function passportOpenidconnect(app) {
  const { default: passport } = await import('passport')
  const { default: Strategy } = await import('passport-openidconnect')
  const { default: session } = await import('express-session')
  passport.use(new Strategy({
    issuer, authorizationURL: `${issuer}/oauth2/auth`, tokenURL: `${issuer}/oauth2/token`, userInfoURL: `${issuer}/oauth2/userinfo`,
    clientID: id, clientSecret: secret, callbackURL: `${at}/callback`, scope: ['email'], nonce: true,
  }, (issuer, profile, done) => done(null, profile)))
  passport.serializeUser((user, done) => done(null, user))
  passport.deserializeUser((user, done) => done(null, user))
  app.use(session({ secret: 'of a test', resave: false, saveUninitialized: false }))
  app.use(passport.session())
  app.get('/login', passport.authenticate('openidconnect'))
  app.get('/callback', passport.authenticate('openidconnect', { successRedirect: '/', failWithError: true }))
  app.get('/', (req, res) => res.json({ sub: req.user.id }))
}

async function expressOpenidConnect(app) {
  const { default: { auth, requiresAuth } } = await import('express-openid-connect')
  app.use(auth({
    issuerBaseURL: issuer, baseURL: at, clientID: id, clientSecret: secret, secret: 'a secret of the portal, long enough',
    authRequired: false, authorizationParams: { response_type: 'code' },
  }))
  app.get('/', requiresAuth(), async (req, res) => res.json(await req.oidc.fetchUserInfo()))
}

async function authjs(app) {
  const { Auth, skipCSRFCheck } = await import('@auth/core')
  const config = {
    providers: [{ id: 'patauth', name: 'Patients', type: 'oidc', issuer, clientId: id, clientSecret: secret, idToken: false }],
    secret: 'a secret of the portal, long enough', trustHost: true, basePath: '/auth', skipCSRFCheck,
  }
  const answer = async (res, request) => {
    const r = await Auth(request, config)
    r.headers.forEach((v, k) => k !== 'set-cookie' && res.setHeader(k, v))
    res.setHeader('set-cookie', r.headers.getSetCookie())
    res.status(r.status).send(await r.text())
  }
  app.get('/login', (req, res) => answer(res, new Request(`${at}/auth/signin/patauth`, {
    method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: new URLSearchParams({ callbackUrl: `${at}/` }),
  })))
  app.get('/auth/*', (req, res) => answer(res, new Request(at + req.url, { headers: { cookie: req.headers.cookie ?? '' } })))
  app.get('/', async (req, res) => {
    const r = await Auth(new Request(`${at}/auth/session`, { headers: { cookie: req.headers.cookie ?? '' } }), config)
    res.json((await r.json()).user)
  })
}

const { default: express } = await import('express')
const app = express()
await { 'openid-client': openidClient, 'passport-openidconnect': passportOpenidconnect, 'express-openid-connect': expressOpenidConnect, '@auth/core': authjs }[library](app)
app.use((err, req, res, next) => res.status(500).send(`${err.stack}\n${err.cause?.stack ?? ''}`))
createServer(app).listen(port, 'localhost')
