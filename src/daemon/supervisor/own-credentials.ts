import type { Config } from '../../config/schema.ts';
import { type CredentialTexts, NodeCredentials, readCredentials } from '../../identity/node-credentials.ts';
import { grants } from '../../model/peer.ts';
import type { NodeName, ServiceName } from '../../model/service.ts';
import type { Log } from '../../telemetry/log.ts';

/**
 * The certificate of this node, as the supervisor reads it for its workers. Tunnels need one; permissive services do
 * not, and a host whose certificate cannot be used must still boot: so what is wrong is logged and never thrown.
 */
export class OwnCredentials {
  readonly #node: NodeName;
  readonly #log: Log;
  #credentials: NodeCredentials | undefined;

  constructor(node: NodeName, log: Log) {
    this.#node = node;
    this.#log = log.child({ component: 'identity' });
  }

  /** Reads the files; when they cannot be used, what was read before stays. */
  async load({ identity, node }: Config): Promise<void> {
    try {
      const texts = await readCredentials(identity);
      if (this.#credentials !== undefined) this.#credentials.replace(texts);
      else {
        const { trustDomain } = identity;
        this.#credentials = new NodeCredentials(texts, { trustDomain, node: this.#node });
      }
    } catch (error) {
      const stays = this.#credentials === undefined ? 'there are no tunnels' : 'the old certificate stays';
      this.#log.error({ error }, `identity: ${stays}`);
      return;
    }
    const { callAs } = node;
    if (callAs !== undefined && !grants(this.#credentials.identity.callAs, callAs as ServiceName)) {
      this.#log.error(
        { callAs },
        'identity: the certificate does not allow node.callAs; peers will refuse every call',
      );
    }
  }

  /** For the workers; undefined while there is none that can be used: a worker must not fail over an expired one. */
  current(): CredentialTexts | undefined {
    const credentials = this.#credentials;
    return credentials !== undefined && credentials.expiresAt > Date.now()
      ? credentials.current()
      : undefined;
  }

  /** End of the certificate's life, milliseconds since the epoch. */
  get expiresAt(): number | undefined {
    return this.#credentials?.expiresAt;
  }
}
