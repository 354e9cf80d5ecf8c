"""The milter: asks a scanner whether a message is spam, and tells Postfix what to do with it."""
