"""The lines of sales orders become a view of the transactions instead of a copy.

A migration is frozen: it declares its types itself, so that later releases of `schemas` do not change it.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Replace the table by the view."""
    op.drop_table("sales_order_lines")
    op.execute(
        """
        CREATE VIEW sales_order_lines AS
        SELECT orders.legal_entity, orders.sales_order, CAST(line.number AS integer) AS line_number,
               line.sku, line.quantity, line.price, line.amount
        FROM sales_orders AS orders
        JOIN retail_transactions AS sold ON sold.transaction_id = orders.transaction_id
        CROSS JOIN LATERAL ROWS FROM (
            json_to_recordset(sold.content->'lines') AS (sku text, quantity numeric, price numeric, amount numeric)
        ) WITH ORDINALITY AS line (sku, quantity, price, amount, number)
        """
    )
