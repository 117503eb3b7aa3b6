// Submits the form that carries an authorization response (OAuth 2.0 Form Post
// Response Mode). Without scripts the patient presses its button.
document.querySelector('form[data-submit="now"]')?.submit();
