import { describe, expect, it } from 'vitest';
import type { Upstream } from '../../../src/http/upstream.ts';
import { UpstreamShelves } from '../../../src/http/upstream-shelves.ts';
import type { InstanceId, ServiceName } from '../../../src/model/service.ts';

const web = 'web' as ServiceName;
const mail = 'mail' as ServiceName;
const one = 'one' as InstanceId;
const two = 'two' as InstanceId;

const upstream = (service: ServiceName, id: InstanceId, share: string) =>
  ({ start: { service, instance: { id }, share } }) as Upstream;

const all = () => true;

describe('UpstreamShelves', () => {
  it('tells services, instances and shares apart, whatever their names are made of', () => {
    const shelves = new UpstreamShelves();
    const kinds = [
      upstream(web, one, 'curl'),
      upstream(web, one, ''),
      upstream(web, two, 'curl'),
      upstream(mail, one, 'curl'),
      upstream('web one' as ServiceName, 'curl' as InstanceId, ''),
    ];
    for (const kind of kinds) shelves.of(kind).push(kind);
    for (const kind of kinds) expect(shelves.of(kind)).toEqual([kind]);
    expect(shelves.get(web, two, 'curl')).toEqual([kinds[2]]);
    expect(shelves.get(mail, two, 'curl')).toBeUndefined();
  });

  it('sorts out what does not stay, of the services that are meant, and forgets what is empty', () => {
    const shelves = new UpstreamShelves();
    const [stays, goes, other] = [upstream(web, one, ''), upstream(web, one, ''), upstream(mail, one, '')];
    for (const each of [stays, goes, other]) shelves.of(each).push(each);
    const gone = shelves.sort(
      (service) => service === web,
      (each) => each === stays,
    );
    expect(gone).toEqual([goes]);
    expect(shelves.get(web, one, '')).toEqual([stays]);
    expect(shelves.get(mail, one, '')).toEqual([other]);

    expect(shelves.sort(all, () => false)).toEqual([stays, other]);
    expect(shelves.get(web, one, '')).toBeUndefined();
    expect(shelves.sort(all, () => false)).toEqual([]);
  });
});
