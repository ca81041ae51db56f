import { Link } from "gatsby"
import Layout from "../layout"

export default function Archive({ pageContext: { page, posts } }) {
  return (
    <Layout>
      <h1>Archive, page {page}</h1>
      <ul>
        {posts.map(post => (
          <li key={post.path}>
            <time>{post.date}</time> <Link to={post.path}>{post.title}</Link>
          </li>
        ))}
      </ul>
    </Layout>
  )
}

export function Head({ pageContext: { page } }) {
  return <title>{`Archive, page ${page}`}</title>
}
