// The page at /docs: swagger-ui over the service's own OpenAPI document, with the token of this tab.
import { token } from "./client.js";

interface Swagger {
  (options: {
    url: string;
    domNode: Element | null;
    deepLinking: boolean;
    validatorUrl: null;
    persistAuthorization: boolean;
    requestInterceptor: (request: { headers: Record<string, string> }) => unknown;
  }): unknown;
}

declare const SwaggerUIBundle: Swagger;

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = (): void => void document.documentElement.classList.toggle("dark-mode", dark.matches); // colours of swagger-ui.css
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "api/v1/openapi.json",
  domNode: document.getElementById("docs"),
  deepLinking: true,
  validatorUrl: null, // which would be a request to another host
  persistAuthorization: false,
  requestInterceptor: (request) => {
    const known = token();
    if (known && !request.headers["Authorization"]) request.headers["Authorization"] = `Bearer ${known}`;
    return request;
  },
});
