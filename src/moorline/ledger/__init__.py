"""Small records that outlive builds. A directory now; the protocol comes with the second kind."""
