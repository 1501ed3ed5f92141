"""What the page's events do: `plan` for the steps video and plan, `edit` for the step edit."""
