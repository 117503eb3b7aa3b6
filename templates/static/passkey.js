// Passkeys for plain forms. A page offers
//
//   <form method="post" action="…" data-passkey="get" data-options="{…}" hidden>
//     <input type="hidden" name="credential">
//     <p class="problem" role="alert" data-passkey-error hidden>…</p>
//     <button>…</button>
//   </form>
//
// where data-passkey is "create" or "get" and data-options is the JSON of
// PublicKeyCredentialCreationOptions or …RequestOptions (W3C WebAuthn Level 3).
// The form is shown where the browser knows passkeys; the answer goes to the
// hidden input as JSON and the form is sent. With data-conditional the browser
// may also offer passkeys in an input with autocomplete="username webauthn".
"use strict";
(() => {
  if (!window.PublicKeyCredential || !navigator.credentials) return;

  const bytes = (s) => Uint8Array.from(atob(s.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const ids = (list) => (list || []).map((c) => ({ ...c, id: bytes(c.id) }));

  // options turns the JSON form into the one with buffers.
  const options = (form) => {
    const o = JSON.parse(form.dataset.options);
    o.challenge = bytes(o.challenge);
    if (o.user) o.user = { ...o.user, id: bytes(o.user.id) };
    if (o.excludeCredentials) o.excludeCredentials = ids(o.excludeCredentials);
    if (o.allowCredentials) o.allowCredentials = ids(o.allowCredentials);
    return o;
  };

  // answer turns a credential into RegistrationResponseJSON or AuthenticationResponseJSON.
  const answer = (c) => {
    const r = c.response, out = { clientDataJSON: text(r.clientDataJSON) };
    for (const k of ["attestationObject", "authenticatorData", "signature", "userHandle"]) if (r[k]) out[k] = text(r[k]);
    if (r.getTransports) out.transports = r.getTransports();
    return JSON.stringify({
      id: c.id, rawId: text(c.rawId), type: c.type, response: out,
      authenticatorAttachment: c.authenticatorAttachment || undefined,
      clientExtensionResults: c.getClientExtensionResults(),
    });
  };

  let waiting; // the conditional request, which a button press takes the place of

  const ask = async (form, mediation) => {
    if (waiting) waiting.abort();
    const mine = (waiting = new AbortController());
    const request = { publicKey: options(form), signal: mine.signal };
    if (mediation) request.mediation = mediation;
    const credential = await navigator.credentials[form.dataset.passkey](request);
    if (mine.signal.aborted || !credential) return;
    form.elements.credential.value = answer(credential);
    form.submit();
  };

  const complain = (form, shown) => {
    const p = form.querySelector("[data-passkey-error]");
    if (p) p.hidden = !shown;
    const b = form.querySelector("button");
    if (b) b.disabled = !shown;
  };

  for (const form of document.querySelectorAll("form[data-passkey][data-options]")) {
    form.hidden = false;
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      complain(form, false);
      ask(form).catch(() => complain(form, true));
    });
    if (form.dataset.passkey === "get" && "conditional" in form.dataset && PublicKeyCredential.isConditionalMediationAvailable) {
      PublicKeyCredential.isConditionalMediationAvailable()
        .then((yes) => yes && ask(form, "conditional"))
        .catch(() => {}); // the button is still there
    }
  }
})();
