# Portals on libraries of others, each as its own documentation has it: argv[1] says
# which, and is JSON with the issuer, the client and where to listen. Who opens /login
# is signed in, and sees what the portal learned.
import json
import os
import sys
from urllib.parse import urlsplit
from wsgiref.simple_server import make_server

given = json.loads(sys.argv[1])
issuer, client_id, secret, at = given["issuer"], given["id"], given["secret"], given["at"]


def authlib():
    from authlib.integrations.flask_client import OAuth
    from flask import Flask, jsonify

    app = Flask("portal")
    app.secret_key = "of a test"
    patauth = OAuth(app).register(
        "patauth", server_metadata_url=issuer + "/.well-known/openid-configuration", client_id=client_id,
        client_secret=secret, client_kwargs={"scope": "openid email"})
    app.get("/login")(lambda: patauth.authorize_redirect(at + "/callback"))

    @app.get("/callback")
    def callback():
        token = patauth.authorize_access_token()
        return jsonify({**patauth.userinfo(token=token), "sub": token["userinfo"]["sub"]})

    return app


def requests_oauthlib():
    from flask import Flask, jsonify, redirect, request
    from requests_oauthlib import OAuth2Session

    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # this portal is on http
    app = Flask("portal")
    portal = OAuth2Session(client_id, redirect_uri=at + "/callback", scope=["openid", "email"], pkce="S256")
    app.get("/login")(lambda: redirect(portal.authorization_url(issuer + "/oauth2/auth")[0]))

    @app.get("/callback")
    def callback():
        portal.fetch_token(issuer + "/oauth2/token", authorization_response=request.url, client_secret=secret)
        return jsonify(portal.get(issuer + "/oauth2/userinfo").json())

    return app


def mozilla_django_oidc():
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["localhost"], SECRET_KEY="of a test", ROOT_URLCONF="urls", USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "portal.sqlite"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "mozilla_django_oidc"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
        AUTHENTICATION_BACKENDS=["mozilla_django_oidc.auth.OIDCAuthenticationBackend"], LOGIN_REDIRECT_URL="/",
        OIDC_RP_CLIENT_ID=client_id, OIDC_RP_CLIENT_SECRET=secret, OIDC_RP_SIGN_ALGO="RS256",
        OIDC_OP_JWKS_ENDPOINT=issuer + "/.well-known/jwks.json", OIDC_OP_AUTHORIZATION_ENDPOINT=issuer + "/oauth2/auth",
        OIDC_OP_TOKEN_ENDPOINT=issuer + "/oauth2/token", OIDC_OP_USER_ENDPOINT=issuer + "/oauth2/userinfo")
    django.setup()
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.shortcuts import redirect
    from django.urls import include, path

    call_command("migrate", verbosity=0)
    urls = type(sys)("urls")
    urls.urlpatterns = [
        path("", lambda r: JsonResponse({"email": r.user.email})),
        path("login", lambda r: redirect("oidc_authentication_init")),
        path("oidc/", include("mozilla_django_oidc.urls")),
    ]
    sys.modules["urls"] = urls
    return get_wsgi_application()


app = {"Authlib": authlib, "requests-oauthlib": requests_oauthlib, "mozilla-django-oidc": mozilla_django_oidc}[given["library"]]()
make_server("localhost", urlsplit(at).port, app).serve_forever()
