import { ResponseParser } from '../http1/response-parser.ts';
import type { ActiveProbe } from '../model/policy.ts';
import type { ServiceName } from '../model/service.ts';
import type { Question } from '../proxy/prober.ts';

/** By this field servers tell probes from callers. */
const USER_AGENT = 'mesh-node-probe';

/** What a policy says about probes by HTTP. */
type HttpProbe = NonNullable<ActiveProbe['http']>;

/** Asks by GET, and takes the statuses that the policy names for a good answer; its content is not waited for. */
export function httpQuestion(probe: HttpProbe, service: ServiceName): Question {
  const request = Buffer.from(
    [
      `GET ${probe.path} HTTP/1.1`,
      `host: ${probe.host ?? service}`,
      `user-agent: ${USER_AGENT}`,
      'accept: */*',
      'connection: close',
      '\r\n',
    ].join('\r\n'),
    'latin1',
  );
  return (channel, told, lost) => {
    let over = false;
    const tell = (good: boolean): void => {
      if (over) return;
      over = true;
      told(good);
    };
    const parser = new ResponseParser({
      head: ({ interim, status }) => {
        if (!interim) tell(probe.statuses.some(({ from, to }) => status >= from && status <= to));
      },
      content: () => {},
      end: () => {},
    });
    parser.begin({ method: 'GET', upgrade: undefined });
    channel.handler = {
      data: (bytes) => {
        try {
          parser.push(bytes);
        } catch {
          tell(false); // what is no HTTP is no good answer
        }
      },
      end: () => tell(false),
      drain: () => {},
      close: (why) => {
        if (!over) lost(why);
      },
    };
    channel.write(request);
    channel.resume();
  };
}
