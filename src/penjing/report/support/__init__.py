"""What the renderers share: numbers, sentences, charts and the page's template."""
