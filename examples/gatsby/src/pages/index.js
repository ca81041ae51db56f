import { Link, graphql } from "gatsby"
import Layout from "../layout"

// Lists the archive pages by path only: no title of any post is on this page.
export const query = graphql`
  {
    site {
      siteMetadata {
        title
      }
    }
    allSitePage(filter: { path: { glob: "/archive/*/" } }) {
      nodes {
        path
      }
    }
  }
`

const pageNumber = path => Number(path.split("/")[2])

export default function Index({ data }) {
  const paths = data.allSitePage.nodes.map(node => node.path)
  return (
    <Layout>
      <h1>{data.site.siteMetadata.title}</h1>
      <p>Notes from the shop and the harbour: what we sell, what broke, and what held.</p>
      <ul>
        {paths
          .sort((a, b) => pageNumber(a) - pageNumber(b))
          .map(path => (
            <li key={path}>
              <Link to={path}>Archive, page {pageNumber(path)}</Link>
            </li>
          ))}
      </ul>
    </Layout>
  )
}

export function Head({ data }) {
  return <title>{data.site.siteMetadata.title}</title>
}
