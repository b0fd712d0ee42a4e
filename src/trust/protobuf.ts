/** Value of a protobuf field: a number, or bytes that may be text or a nested message. */
type Value = bigint | Buffer;

const MAX_FIELDS = 10_000;

/**
 * Reads the fields of one protobuf message (protobuf.dev, Encoding): varints and length-delimited values, by number, in
 * order. Throws a RangeError for anything else. The caller knows what the numbers mean.
 */
export function readProtobuf(bytes: Buffer): ReadonlyMap<number, readonly Value[]> {
  const fields = new Map<number, Value[]>();
  let at = 0;
  let count = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new RangeError('a protobuf message ends too early');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new RangeError('a protobuf number is too long');
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    if (++count > MAX_FIELDS) throw new RangeError('a protobuf message has too many fields');
    const [number, type] = [tag >> 3, tag & 7];
    if (type !== 0 && type !== 2) throw new RangeError(`unsupported protobuf wire type ${type}`);
    let value: Value = varint();
    if (type === 2) {
      const length = Number(value);
      if (at + length > bytes.length) throw new RangeError('a protobuf message ends too early');
      value = bytes.subarray(at, at + length);
      at += length;
    }
    const values = fields.get(number) ?? [];
    values.push(value);
    fields.set(number, values);
  }
  return fields;
}
