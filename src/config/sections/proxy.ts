import { z } from 'zod';
import { port } from '../scalars.ts';

/** Who may call the explicit proxy, in words: from this host only, from containers behind `capture.bridges` as well, or anybody. */
const reaches = ['loopback', 'bridges', 'everybody'] as const;

/** The explicit proxy. */
export const proxy = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe('Take requests from programs that are told to use a proxy (`HTTP_PROXY`, CONNECT).'),
    port: port(15003).describe('Port of the proxy; outside net.ipv4.ip_local_port_range.'),
    reach: z
      .enum(reaches)
      .default('loopback')
      .describe(
        'Where it listens: on loopback, also at the addresses of `capture.bridges`, or at every address, as an open proxy for whoever reaches this host.',
      ),
  })
  .prefault({})
  .describe('The explicit proxy, for programs whose connections are not, or cannot be, intercepted.');
