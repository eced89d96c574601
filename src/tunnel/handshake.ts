import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { chooseSubprotocol, subprotocols, TUNNEL_PATH } from './websocket.ts';

/*
 * The WebSocket handshake is that of `ws`, on both sides. Where `ws` would begin to read and write messages it calls
 * `setSocket`, for which it has subclasses' overrides in mind (option `WebSocket` of its server): there the connection
 * is taken away from it, before it has attached anything, and the framing is our own from then on.
 */

/** Largest head of the answer to an upgrade. */
const MAX_RESPONSE_HEAD = 8192;

/** A connection after its handshake; `head`: bytes that came in the same read. */
interface Upgraded {
  readonly socket: Duplex;
  readonly head: Buffer;
}

class Handshake extends WebSocket {
  upgraded: Upgraded | undefined;

  /** Called by `ws` when the handshake is verified, on the server right before the callback of `handleUpgrade`. */
  setSocket(socket: Duplex, head: Buffer): void {
    this.upgraded = { socket, head };
    this.emit('open');
  }
}

/**
 * Asks for the upgrade on a connection that is ready for it. Exactly one of the callbacks is called; a failed
 * connection is destroyed.
 */
export function askUpgrade(
  socket: Duplex,
  host: string,
  callbacks: { upgraded(head: Buffer): void; failed(error: Error): void },
): void {
  // The name in the URL is of no meaning: the connection is there already, and `Host` says whom we want.
  const handshake = new Handshake(`ws://mesh-node${TUNNEL_PATH}`, [...subprotocols], {
    createConnection: () => socket as never,
    headers: { Host: host },
    maxHeaderSize: MAX_RESPONSE_HEAD,
    perMessageDeflate: false,
    autoPong: false,
  });
  let over = false;
  handshake.on('error', (error) => {
    if (over) return;
    over = true;
    callbacks.failed(error);
  });
  handshake.on('open', () => {
    over = true;
    callbacks.upgraded(handshake.upgraded!.head);
  });
}

/** Answers upgrades. */
export class UpgradeServer {
  readonly #server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    autoPong: false,
    WebSocket: Handshake,
    handleProtocols: (_offered, request) => choiceFor(request) ?? false,
  });

  /** True when the request offers a subprotocol that we speak. */
  speaks(request: IncomingMessage): boolean {
    return choiceFor(request) !== undefined;
  }

  /** Checks the request and answers it. `upgraded` is called when it is valid; otherwise the connection is closed. */
  answer(request: IncomingMessage, socket: Duplex, head: Buffer, upgraded: (head: Buffer) => void): void {
    this.#server.handleUpgrade(request, socket, head, (handshake) => upgraded(handshake.upgraded!.head));
  }
}

function choiceFor(request: IncomingMessage): string | undefined {
  return chooseSubprotocol(request.headers['sec-websocket-protocol']);
}
