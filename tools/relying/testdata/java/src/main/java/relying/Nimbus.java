package relying;

import com.nimbusds.oauth2.sdk.AuthorizationCodeGrant;
import com.nimbusds.oauth2.sdk.ResponseType;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenErrorResponse;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.oauth2.sdk.id.State;
import com.nimbusds.oauth2.sdk.pkce.CodeChallengeMethod;
import com.nimbusds.oauth2.sdk.pkce.CodeVerifier;
import com.nimbusds.openid.connect.sdk.AuthenticationRequest;
import com.nimbusds.openid.connect.sdk.AuthenticationResponse;
import com.nimbusds.openid.connect.sdk.AuthenticationResponseParser;
import com.nimbusds.openid.connect.sdk.AuthenticationSuccessResponse;
import com.nimbusds.openid.connect.sdk.Nonce;
import com.nimbusds.openid.connect.sdk.OIDCTokenResponse;
import com.nimbusds.openid.connect.sdk.OIDCTokenResponseParser;
import com.nimbusds.openid.connect.sdk.UserInfoRequest;
import com.nimbusds.openid.connect.sdk.UserInfoResponse;
import com.nimbusds.openid.connect.sdk.claims.IDTokenClaimsSet;
import com.nimbusds.openid.connect.sdk.claims.UserInfo;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import com.nimbusds.openid.connect.sdk.rp.OIDCClientInformation;
import com.nimbusds.openid.connect.sdk.rp.OIDCClientMetadata;
import com.nimbusds.openid.connect.sdk.validators.IDTokenValidator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.Date;

/**
 * A portal on the SDK of Nimbus: issuer, id, secret and redirect URI. It prints an address for a browser, reads where the
 * browser was sent from there, and prints the patient's subject and e-mail address.
 */
public class Nimbus {
  public static void main(String[] args) throws Exception {
    Issuer issuer = new Issuer(args[0]);
    ClientID id = new ClientID(args[1]);
    Secret secret = new Secret(args[2]);
    URI callback = URI.create(args[3]);
    OIDCProviderMetadata provider = OIDCProviderMetadata.resolve(issuer);

    State state = new State();
    Nonce nonce = new Nonce();
    CodeVerifier verifier = new CodeVerifier();
    System.out.println(new AuthenticationRequest.Builder(ResponseType.CODE, new Scope("openid", "email"), id, callback)
        .endpointURI(provider.getAuthorizationEndpointURI()).state(state).nonce(nonce)
        .codeChallenge(verifier, CodeChallengeMethod.S256).build().toURI());
    URI came = URI.create(new BufferedReader(new InputStreamReader(System.in)).readLine());
    AuthenticationResponse answer = AuthenticationResponseParser.parse(came);
    is(answer.indicatesSuccess(), came);
    AuthenticationSuccessResponse success = answer.toSuccessResponse();
    is(state.equals(success.getState()) && issuer.equals(success.getIssuer()), came);

    AuthorizationCodeGrant code = new AuthorizationCodeGrant(success.getAuthorizationCode(), callback, verifier);
    ClientSecretBasic client = new ClientSecretBasic(id, secret);
    TokenResponse response = OIDCTokenResponseParser.parse(new TokenRequest(provider.getTokenEndpointURI(), client, code).toHTTPRequest().send());
    is(response.indicatesSuccess(), response.toHTTPResponse().getContent());
    OIDCTokenResponse tokens = (OIDCTokenResponse) response.toSuccessResponse();
    OIDCClientMetadata metadata = new OIDCClientMetadata();
    metadata.applyDefaults(); // RS256 for ID tokens; without it the SDK knows of none
    IDTokenValidator validator = IDTokenValidator.create(provider, new OIDCClientInformation(id, new Date(), metadata, secret));
    IDTokenClaimsSet claims = validator.validate(tokens.getOIDCTokens().getIDToken(), nonce);

    UserInfoResponse info = UserInfoResponse.parse(
        new UserInfoRequest(provider.getUserInfoEndpointURI(), tokens.getOIDCTokens().getAccessToken()).toHTTPRequest().send());
    is(info.indicatesSuccess(), info.toHTTPResponse().getContent());
    UserInfo user = info.toSuccessResponse().getUserInfo();
    is(user.getSubject().equals(claims.getSubject()), user);

    // What is refused is an error that it can read.
    TokenErrorResponse again = TokenErrorResponse.parse(new TokenRequest(provider.getTokenEndpointURI(), client, code).toHTTPRequest().send());
    is(again.getErrorObject().getCode().equals("invalid_grant"), again.getErrorObject());
    System.out.println(user.getSubject() + " " + user.getEmailAddress());
  }

  private static void is(boolean so, Object otherwise) {
    if (!so) {
      throw new AssertionError(otherwise);
    }
  }
}
