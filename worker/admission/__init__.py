"""Claims queued runs that the governor admits, and records why the others wait."""
