import { connect, createServer, type Socket } from 'node:net';

/*
 * The least SOCKS5 server (RFC 1928) that redsocks needs: no authentication, CONNECT to an IPv4 address.
 * Arguments: address and port to listen on.
 */

const GREETING_ANSWER = Buffer.from([5, 0]);
const CONNECTED = Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
/** Version, command, reserved, address type, IPv4 address, port. */
const REQUEST_BYTES = 10;

function serve(client: Socket): void {
  let input = Buffer.alloc(0);
  let greeted = false;
  const onData = (chunk: Buffer): void => {
    input = Buffer.concat([input, chunk]);
    if (!greeted && input.length >= 2 && input.length >= 2 + input[1]!) {
      input = input.subarray(2 + input[1]!);
      greeted = true;
      client.write(GREETING_ANSWER);
    }
    if (!greeted || input.length < REQUEST_BYTES) return;
    client.pause().off('data', onData);
    if (input[1] !== 1 || input[3] !== 1) {
      client.destroy();
      return;
    }
    const upstream = connect(input.readUInt16BE(8), input.subarray(4, 8).join('.'));
    upstream.setNoDelay(true).on('error', () => client.destroy());
    upstream.on('close', () => client.destroy());
    client.on('close', () => upstream.destroy());
    upstream.on('connect', () => {
      client.write(CONNECTED);
      if (input.length > REQUEST_BYTES) upstream.write(input.subarray(REQUEST_BYTES));
      client.pipe(upstream).pipe(client);
    });
  };
  client
    .setNoDelay(true)
    .on('error', () => client.destroy())
    .on('data', onData);
}

createServer({ allowHalfOpen: true }, serve).listen({
  host: process.argv[2]!,
  port: Number(process.argv[3]),
  backlog: 4096,
});
