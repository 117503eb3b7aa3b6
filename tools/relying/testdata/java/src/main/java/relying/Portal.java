package relying;

import java.util.Map;
import java.util.TreeMap;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.core.annotation.Order;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A portal on Spring Security, and below /api/ the server of an API that reads JWT access tokens by itself. */
@SpringBootApplication
@RestController
public class Portal {
  public static void main(String[] args) {
    SpringApplication.run(Portal.class, args);
  }

  @Bean
  @Order(1)
  SecurityFilterChain server(HttpSecurity http) throws Exception {
    String issuer = System.getProperty("issuer"), audience = System.getProperty("audience");
    // Of itself Spring's decoder takes no typ but JWT; RFC 9068, Section 4, has at+jwt.
    NimbusJwtDecoder decoder = NimbusJwtDecoder.withIssuerLocation(issuer).validateType(false).build();
    decoder.setJwtValidator(JwtValidators.createAtJwtValidator().issuer(issuer).audience(audience).clientId(System.getProperty("service")).build());
    return http.securityMatcher("/api/**").authorizeHttpRequests(r -> r.anyRequest().authenticated())
        .oauth2ResourceServer(s -> s.jwt(j -> j.decoder(decoder))).build();
  }

  @Bean
  SecurityFilterChain pages(HttpSecurity http) throws Exception {
    return http.authorizeHttpRequests(r -> r.anyRequest().authenticated()).oauth2Login(Customizer.withDefaults()).build();
  }

  @GetMapping("/")
  Map<String, Object> home(@AuthenticationPrincipal OidcUser user) {
    return new TreeMap<>(Map.of("sub", user.getSubject(), "email", user.getEmail(), "name", user.getFullName()));
  }

  @GetMapping("/api/")
  Map<String, Object> api(@AuthenticationPrincipal Jwt token) {
    return Map.of("sub", token.getSubject());
  }
}
