// The style sheet is linked, not imported. Webpack compiles imported CSS in a child compilation, which it
// skips when .cache is warm, and its compilation hash, which Gatsby writes into every page, then differs.
exports.onRenderBody = ({ setHeadComponents }) => {
  const { createElement } = require("react")
  setHeadComponents([createElement("link", { key: "style", rel: "stylesheet", href: "/site.css" })])
}
