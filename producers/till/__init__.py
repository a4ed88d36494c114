"""What a clerk or an integrator does in a store: customers, orders, sales, cards, ends of day."""
