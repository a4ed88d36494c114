"""The partition of a key."""


def partition_of(key: str, partitions: int) -> int:
    """The partition that the Java clients, and librdkafka with `murmur2_random`, choose for this key."""
    return (_murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2 with Kafka's seed.

    Source: https://github.com/apache/kafka/blob/4.1/clients/src/main/java/org/apache/kafka/common/utils/Utils.java
    """
    factor, bits = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * factor & bits
        word = (word ^ word >> 24) * factor & bits
        value = value * factor & bits ^ word
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * factor & bits
    value = (value ^ value >> 13) * factor & bits
    return value ^ value >> 15
