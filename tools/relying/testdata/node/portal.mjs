// A portal on openid-client, and the server of an API on oauth4webapi. argv[2] is
// JSON: the issuer, the clients and the patient. For a browser it prints an address, one a line, and reads on standard
// input where the browser was sent from there.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import * as oauth4webapi from 'oauth4webapi'
import * as client from 'openid-client'

const given = JSON.parse(process.argv[2])
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
async function browse(url) {
  console.log(url.href)
  return new URL((await answers.next()).value)
}

const redirect_uri = 'https://portal.example/callback'
// Core, Section 3.1.3.7, lets a client that speaks TLS skip the signature of ID
// tokens; this one does not.
const strict = { execute: [client.enableNonRepudiationChecks] }
// Issuer, id and secret alone: it posts the secret and takes RS256.
const config = await client.discovery(new URL(given.issuer), given.portal.id, given.portal.secret, undefined, strict)
assert.equal(config.serverMetadata().authorization_response_iss_parameter_supported, true)
assert.ok(config.serverMetadata().supportsPKCE())
// The same document for those who speak OAuth only (RFC 8414, Section 3).
const oauth = await client.discovery(new URL(given.issuer), given.portal.id, given.portal.secret, undefined, { algorithm: 'oauth2' })
assert.deepEqual(oauth.serverMetadata(), config.serverMetadata())

// begin makes an authorization request, and the checks of its answer.
async function begin(more = {}) {
  const checks = {
    pkceCodeVerifier: client.randomPKCECodeVerifier(), expectedState: client.randomState(),
    expectedNonce: client.randomNonce(), idTokenExpected: true,
  }
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri, scope: 'openid profile email offline_access', state: checks.expectedState, nonce: checks.expectedNonce,
    code_challenge: await client.calculatePKCECodeChallenge(checks.pkceCodeVerifier), code_challenge_method: 'S256', ...more,
  })
  return { url, checks }
}
const fails = (promise, code, why) => assert.rejects(promise, (e) => {
  assert.equal(e.code, code, e.stack)
  why?.(e)
  return true
})

// The whole flow.
let { url, checks } = await begin({ max_age: 300 })
let at = await browse(url)
const tokens = await client.authorizationCodeGrant(config, at, { ...checks, maxAge: 300 })
assert.equal(tokens.token_type, 'bearer')
assert.ok(tokens.expires_in > 0)
const claims = tokens.claims()
assert.equal(claims.sub, given.patient.id)
const info = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
assert.equal(info.email, given.patient.email)
assert.equal(info.email_verified, true)

// The code again: RFC 6749, Section 5.2, and Section 4.1.2.
await fails(client.authorizationCodeGrant(config, at, checks), 'OAUTH_RESPONSE_BODY_ERROR', (e) => {
  assert.equal(e.error, 'invalid_grant')
  assert.equal(e.status, 400)
})
await fails(client.fetchUserInfo(config, tokens.access_token, claims.sub), 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', (e) => {
  assert.equal(e.status, 401)
  assert.equal(e.cause[0].scheme, 'bearer')
  assert.equal(e.cause[0].parameters.error, 'invalid_token')
})

// Answers that are not to be believed: another issuer's (RFC 9207, Section 2.4),
// one that names nobody, and another request's.
{
  const { url, checks } = await begin()
  const at = await browse(url)
  const altered = (change) => { const u = new URL(at); change(u.searchParams); return u }
  await fails(client.authorizationCodeGrant(config, altered((p) => p.set('iss', 'https://evil.example')), checks), 'OAUTH_INVALID_RESPONSE')
  await fails(client.authorizationCodeGrant(config, altered((p) => p.delete('iss')), checks), 'OAUTH_INVALID_RESPONSE')
  await fails(client.authorizationCodeGrant(config, altered((p) => p.set('state', 'x')), checks), 'OAUTH_INVALID_RESPONSE')
  await fails(client.authorizationCodeGrant(config, altered((p) => p.set('code', 'pa_ac_x')), checks), 'OAUTH_RESPONSE_BODY_ERROR',
    (e) => assert.equal(e.error, 'invalid_grant'))
  // The code itself was touched by nobody.
  await client.authorizationCodeGrant(config, at, checks)
}

// A nonce of another request; a verifier of another request.
{
  const { url, checks } = await begin()
  await fails(client.authorizationCodeGrant(config, await browse(url), { ...checks, expectedNonce: 'other' }), 'OAUTH_JWT_CLAIM_COMPARISON_FAILED')
}
{
  const { url, checks } = await begin()
  await fails(client.authorizationCodeGrant(config, await browse(url), { ...checks, pkceCodeVerifier: client.randomPKCECodeVerifier() }),
    'OAUTH_RESPONSE_BODY_ERROR', (e) => assert.equal(e.error, 'invalid_grant'))
}

// Quietly, more than there is: OpenID Connect Core, Section 3.1.2.6.
{
  const { url, checks } = await begin({ prompt: 'none', acr_values: 'urn:patauth:acr:two-factor' })
  await fails(client.authorizationCodeGrant(config, await browse(url), checks), 'OAUTH_AUTHORIZATION_RESPONSE_ERROR',
    (e) => assert.equal(e.error, 'interaction_required'))
}
{
  const { url, checks } = await begin({ prompt: 'nonsense' })
  await fails(client.authorizationCodeGrant(config, await browse(url), checks), 'OAUTH_AUTHORIZATION_RESPONSE_ERROR',
    (e) => assert.equal(e.error, 'invalid_request'))
}

// Quietly, what is there; one claim more in the ID token (Core, Section 5.5).
{
  const { url, checks } = await begin({ prompt: 'none', claims: JSON.stringify({ id_token: { email: { essential: true } } }) })
  const quiet = await client.authorizationCodeGrant(config, await browse(url), checks)
  assert.equal(quiet.claims().sub, claims.sub)
  assert.equal(quiet.claims().email, given.patient.email)

  // Refresh, and what the resource server is told.
  const fresh = await client.refreshTokenGrant(config, quiet.refresh_token)
  assert.notEqual(fresh.refresh_token, quiet.refresh_token)
  assert.equal(fresh.claims().sub, claims.sub)
  assert.equal(fresh.claims().auth_time, quiet.claims().auth_time)
  await fails(client.refreshTokenGrant(config, fresh.refresh_token, { scope: 'openid lab' }), 'OAUTH_RESPONSE_BODY_ERROR',
    (e) => assert.equal(e.error, 'invalid_scope'))

  // Signed, where the resource server wants it so (RFC 9701, Section 5).
  for (const metadata of [{}, { introspection_signed_response_alg: 'RS256' }]) {
    const server = await client.discovery(new URL(given.issuer), given.server.id, metadata, client.ClientSecretBasic(given.server.secret), strict)
    const told = await client.tokenIntrospection(server, fresh.access_token)
    assert.equal(told.active, true)
    assert.equal(told.sub, claims.sub)
    assert.equal(told.client_id, given.portal.id)
    assert.equal(told.scope, 'openid profile email offline_access')
    assert.deepEqual(await client.tokenIntrospection(server, 'unknown'), { active: false })
  }
  // The portal itself is no resource server.
  await fails(client.tokenIntrospection(config, fresh.access_token), 'OAUTH_RESPONSE_BODY_ERROR', (e) => assert.equal(e.error, 'unauthorized_client'))

  await client.tokenRevocation(config, fresh.refresh_token)
  await client.tokenRevocation(config, fresh.refresh_token)
  await fails(client.refreshTokenGrant(config, fresh.refresh_token), 'OAUTH_RESPONSE_BODY_ERROR', (e) => assert.equal(e.error, 'invalid_grant'))
}

// A JWT for a resource server that reads it by itself (RFC 9068, Section 4), about
// a patient, and from a service that signs for itself (RFC 7523, Section 3).
async function reads(token) {
  const request = new Request(given.resource, { headers: { Authorization: `Bearer ${token}` } })
  return oauth4webapi.validateJwtAccessToken(config.serverMetadata(), request, given.resource)
}
{
  const { url, checks } = await begin({ resource: given.resource, scope: 'openid' })
  const tokens = await client.authorizationCodeGrant(config, await browse(url), checks)
  const read = await reads(tokens.access_token)
  assert.equal(read.sub, claims.sub)
  assert.equal(read.client_id, given.portal.id)
  assert.equal(read.acr, 'urn:patauth:acr:one-factor')
  await fails(client.fetchUserInfo(config, tokens.access_token, claims.sub), 'OAUTH_WWW_AUTHENTICATE_CHALLENGE')
}
{
  const der = Buffer.from(given.key.pem.replace(/-----[^-]*-----/g, ''), 'base64')
  const key = await crypto.subtle.importKey('pkcs8', der, { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, false, ['sign'])
  const service = await client.discovery(new URL(given.issuer), given.service.id, undefined, client.PrivateKeyJwt({ key, kid: given.key.id }), strict)
  const own = await client.clientCredentialsGrant(service, { resource: given.resource, scope: 'results.read' })
  const read = await reads(own.access_token)
  assert.equal(read.sub, given.service.id)
  assert.equal(read.scope, 'results.read')
}

// A client that registers itself (RFC 7591), and is asked for consent as anybody.
{
  const made = await client.dynamicClientRegistration(new URL(given.issuer),
    { client_name: 'Diary', redirect_uris: [redirect_uri], token_endpoint_auth_method: 'client_secret_basic' },
    client.ClientSecretBasic(), strict)
  const verifier = client.randomPKCECodeVerifier()
  const at = await browse(client.buildAuthorizationUrl(made, { redirect_uri, scope: 'openid', nonce: 'n',
    code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256' }))
  const got = await client.authorizationCodeGrant(made, at, { pkceCodeVerifier: verifier, expectedNonce: 'n', idTokenExpected: true })
  assert.notEqual(got.claims().sub, claims.sub) // its own name for the patient (Core, Section 8.1)
}

// A secret that is not the client's.
{
  const wrong = await client.discovery(new URL(given.issuer), given.portal.id, undefined, client.ClientSecretBasic('wrong'), strict)
  await fails(client.clientCredentialsGrant(wrong), 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', (e) => {
    assert.equal(e.status, 401)
    assert.equal(e.cause[0].scheme, 'basic')
  })
  // Who posted it is told the error, not challenged.
  const posted = await client.discovery(new URL(given.issuer), given.portal.id, 'wrong', undefined, strict)
  await fails(client.clientCredentialsGrant(posted), 'OAUTH_RESPONSE_BODY_ERROR', (e) => {
    assert.equal(e.status, 401)
    assert.equal(e.error, 'invalid_client')
  })
}

// Out.
const bye = client.buildEndSessionUrl(config, {
  id_token_hint: tokens.id_token, post_logout_redirect_uri: 'https://portal.example/bye', state: 's',
})
assert.equal((await browse(bye)).href, 'https://portal.example/bye?state=s')
{
  const { url, checks } = await begin({ prompt: 'none' })
  await fails(client.authorizationCodeGrant(config, await browse(url), checks), 'OAUTH_AUTHORIZATION_RESPONSE_ERROR',
    (e) => assert.equal(e.error, 'login_required'))
}
process.exit()
