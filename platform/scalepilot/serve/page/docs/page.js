// The document uses only what OpenAPI 3.0 and 3.1 share; this Swagger UI refuses to read the number 3.1.
fetch("openapi.json").then((answer) => answer.json()).then((document) => {
  window.ui = SwaggerUIBundle({
    spec: { ...document, openapi: "3.0.3" },
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
}).catch((error) => {
  const text = document.createElement("p");
  text.className = "failed";
  text.textContent = "openapi.json could not be read: " + error;
  document.getElementById("swagger-ui").replaceChildren(text);
});
