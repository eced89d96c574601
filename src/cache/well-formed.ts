/** Containers within containers; what we write has five levels. */
const MAX_DEPTH = 16;

/**
 * True when the bytes are exactly one MessagePack value of plain data: maps, arrays, strings, numbers, booleans, nil,
 * all of which are really there. A decoder reserves what a header claims, and runs extensions (regular expressions,
 * errors, shared structures); bytes that pass here can do neither. Allocates nothing that grows with a claim.
 */
export function isPlainMsgpack(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** Values still to come, for each open container. */
  const open: number[] = [1];
  let at = 0;
  while (open.length > 0) {
    if (open.at(-1) === 0) {
      open.pop();
      continue;
    }
    open[open.length - 1]!--;
    if (at >= bytes.length) return false;
    const head = bytes[at++]!;
    const shape = shapeOf(head);
    if (shape === undefined) return false;
    const { lengthBytes, fixed, unit } = shape;
    if (at + lengthBytes > bytes.length) return false;
    const length =
      lengthBytes === 0
        ? fixed
        : lengthBytes === 1
          ? view.getUint8(at)
          : lengthBytes === 2
            ? view.getUint16(at)
            : view.getUint32(at);
    at += lengthBytes;
    if (unit === 'bytes') at += length;
    else {
      const values = unit === 'pairs' ? length * 2 : length;
      // Each value takes a byte at least: a claim beyond what is left is refused before anything is read.
      if (values > bytes.length - at || open.length > MAX_DEPTH) return false;
      open.push(values);
    }
    if (at > bytes.length) return false;
  }
  return at === bytes.length;
}

interface Shape {
  /** Bytes of the length that follows the head. */
  readonly lengthBytes: 0 | 1 | 2 | 4;
  /** The length, when no length follows. */
  readonly fixed: number;
  readonly unit: 'bytes' | 'items' | 'pairs';
}

const shape = (lengthBytes: 0 | 1 | 2 | 4, fixed: number, unit: Shape['unit']): Shape => ({
  lengthBytes,
  fixed,
  unit,
});
const scalar = (size: number) => shape(0, size, 'bytes');

/** By first byte; undefined for extensions and the byte that is never used. */
const shapes: readonly (Shape | undefined)[] = Array.from({ length: 256 }, (_, head) => {
  if (head <= 0x7f || head >= 0xe0 || head === 0xc0 || head === 0xc2 || head === 0xc3) return scalar(0);
  if (head <= 0x8f) return shape(0, head & 0x0f, 'pairs');
  if (head <= 0x9f) return shape(0, head & 0x0f, 'items');
  if (head <= 0xbf) return scalar(head & 0x1f);
  return new Map<number, Shape>([
    [0xc4, shape(1, 0, 'bytes')],
    [0xc5, shape(2, 0, 'bytes')],
    [0xc6, shape(4, 0, 'bytes')],
    [0xca, scalar(4)],
    [0xcb, scalar(8)],
    [0xcc, scalar(1)],
    [0xcd, scalar(2)],
    [0xce, scalar(4)],
    [0xcf, scalar(8)],
    [0xd0, scalar(1)],
    [0xd1, scalar(2)],
    [0xd2, scalar(4)],
    [0xd3, scalar(8)],
    [0xd9, shape(1, 0, 'bytes')],
    [0xda, shape(2, 0, 'bytes')],
    [0xdb, shape(4, 0, 'bytes')],
    [0xdc, shape(2, 0, 'items')],
    [0xdd, shape(4, 0, 'items')],
    [0xde, shape(2, 0, 'pairs')],
    [0xdf, shape(4, 0, 'pairs')],
  ]).get(head);
});

function shapeOf(head: number): Shape | undefined {
  return shapes[head];
}
