def render_page(document):
    return "<html></html>"
