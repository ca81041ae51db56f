import { Link } from "gatsby"
import Layout from "../layout"

export default function Post({ pageContext: { post } }) {
  return (
    <Layout>
      <article>
        <h1>{post.title}</h1>
        <p>
          <time>{post.date}</time> by {post.author}, filed under {post.tags.join(", ")}
        </p>
        {post.images.map(image => (
          <figure key={image.file}>
            <img src={`/images/${image.file}`} alt={image.caption} loading="lazy" />
            <figcaption>{image.caption}</figcaption>
          </figure>
        ))}
        {post.paragraphs.map((paragraph, index) => (
          <p key={index}>{paragraph}</p>
        ))}
      </article>
      <aside>
        <h2>Read next</h2>
        <ul>
          {post.related.map(other => (
            <li key={other.path}>
              <Link to={other.path}>{other.title}</Link>
            </li>
          ))}
        </ul>
      </aside>
    </Layout>
  )
}

export function Head({ pageContext: { post } }) {
  return (
    <>
      <title>{post.title}</title>
      <meta name="description" content={post.paragraphs[0]} />
    </>
  )
}
