"""Benchmarks: each measures its limit and its subject in one run, and reports the ratio.

    python -m benchmarks [--only P1,P5] [--scale small|full] [--output FILE]

customers.py     the data                          distribution.py   P1, P2, P9
servers.py       Kafka and PostgreSQL              headquarters.py   P5, P6
stage.py         topics, databases, settings       latency.py        P7, P7a, P7b
processes.py     the product's processes           relay.py          P8
filling.py       records visible at once           transactions.py   O1, O2, O3
store_load.py    stores under a steady load        decoding.py       E1
till.py          a till of that load               starting.py       L1
cpu.py           CPU by kind of process            rebalancing.py    P11
report.py        the table and the file            batch_sizes.py    S1, S2
                                                   debezium.py       P3
                                                   idle_channel.py   C1
                                                   replicas.py       C2
pictures.py      pictures and table of the page    resyncing.py      P4, P10
                                                   authenticity.py   R1, R2
                                                   ways_out.py       A1, A2, A3
                                                   joining.py        J1, J2
                                                   many_channels.py  J3
"""
