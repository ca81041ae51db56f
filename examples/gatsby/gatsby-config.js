module.exports = {
  siteMetadata: { title: "The Quay Journal" },
  trailingSlash: "always",
  jsxRuntime: "automatic",
}
