"""Order under load: threads send, subscribe and unsubscribe for as long as you like."""
