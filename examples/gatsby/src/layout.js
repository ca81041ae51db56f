import { Link } from "gatsby"

export default function Layout({ children }) {
  return (
    <>
      <header>
        <Link to="/">The Quay Journal</Link>
        <nav>
          <Link to="/archive/1/">Archive</Link>
        </nav>
      </header>
      <main>{children}</main>
      <footer>Rope, canvas and hardware for small boats. Open when the tide allows.</footer>
    </>
  )
}
