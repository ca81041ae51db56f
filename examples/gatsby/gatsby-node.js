// Every page gets exactly the data it shows, as its context, and nothing that all posts share.
// So an edit of one post changes that post's two output files and no others.
const fs = require("fs")
const path = require("path")

const POSTS = path.join(__dirname, "content", "posts")
const POSTS_PER_ARCHIVE_PAGE = 120

const template = name => path.join(__dirname, "src", "templates", `${name}.js`)
const postPath = post => `/posts/${post.slug}/`
const linkTo = post => ({ path: postPath(post), title: post.title })

function readPosts() {
  const names = fs.readdirSync(POSTS).sort()
  const posts = names.map(name => JSON.parse(fs.readFileSync(path.join(POSTS, name), "utf8")))
  return posts.sort((a, b) => a.number - b.number)
}

function createPostPages(posts, createPage) {
  const bySlug = new Map(posts.map(post => [post.slug, post]))
  for (const post of posts) {
    const related = post.related.map(slug => linkTo(bySlug.get(slug)))
    createPage({
      path: postPath(post),
      component: template("post"),
      context: { post: { ...post, related } },
    })
  }
}

function createArchivePages(posts, createPage) {
  for (let start = 0, page = 1; start < posts.length; start += POSTS_PER_ARCHIVE_PAGE, page++) {
    createPage({
      path: `/archive/${page}/`,
      component: template("archive"),
      context: {
        page,
        posts: posts
          .slice(start, start + POSTS_PER_ARCHIVE_PAGE)
          .map(post => ({ ...linkTo(post), date: post.date })),
      },
    })
  }
}

exports.createPages = ({ actions }) => {
  const posts = readPosts()
  createPostPages(posts, actions.createPage)
  createArchivePages(posts, actions.createPage)
}
