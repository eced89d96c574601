import ipaddr from 'ipaddr.js';

/*
 * Messages as the kernel's nfnetlink_log makes them (include/uapi/linux/netfilter/nfnetlink_log.h), for tests.
 */

/** One attribute with its padding. */
export function attribute(type: number, bytes: readonly number[]): readonly number[] {
  const length = bytes.length + 4;
  const padding = new Array<number>((4 - (length % 4)) % 4).fill(0);
  return [length & 0xff, length >> 8, type & 0xff, type >> 8, ...bytes, ...padding];
}

/** A message that shows one packet; `family` is AF_INET (2) or AF_INET6 (10). */
export function nflogMessage(family: number, attributes: readonly (readonly number[])[]): Uint8Array {
  const body = [family, 0, 0, 1, ...attributes.flat()];
  const message = new Uint8Array(16 + body.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, message.length, true);
  view.setUint16(4, 0x400, true);
  message.set(body, 16);
  return message;
}

/** IP and TCP header of a SYN, of the family of the addresses. */
export function tcpSyn(
  source: string,
  sourcePort: number,
  destination: string,
  destinationPort: number,
  sequence: number,
): readonly number[] {
  const [from, to] = [source, destination].map((text) => ipaddr.parse(text).toByteArray());
  const port = (value: number) => [value >> 8, value & 0xff];
  const number = [24, 16, 8, 0].map((shift) => (sequence >>> shift) & 0xff);
  const tcp = [
    ...port(sourcePort),
    ...port(destinationPort),
    ...number,
    0,
    0,
    0,
    0,
    0x50,
    2,
    0,
    0,
    0,
    0,
    0,
    0,
  ];
  return from!.length === 4
    ? [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, ...from!, ...to!, ...tcp]
    : [0x60, 0, 0, 0, 0, 20, 6, 64, ...from!, ...to!, ...tcp];
}
