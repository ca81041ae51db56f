// The style sheet is linked, not imported. Webpack compiles imported CSS in a child compilation,
// which it skips when .cache is warm. Its compilation hash, which Gatsby writes into every page,
// would then change although nothing else does.
const { createElement } = require("react")

exports.onRenderBody = ({ setHeadComponents }) => {
  setHeadComponents([createElement("link", { key: "style", rel: "stylesheet", href: "/site.css" })])
}
