"""What lives: the immutable snapshot of one configuration, and the counts that outlive reloads."""
