"""What unitscope costs: one module for everything that is measured, and the page that
reports it."""
