/* What Redis knows by name: closed sets, because metrics and the log use them as labels. */

/** Commands of Redis 7.4 and Valkey 8, and those with which clients begin. A command of another name is `other`. */
const KNOWN = [
  'acl append asking auth bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpop',
  'brpoplpush bzmpop bzpopmax bzpopmin client cluster command config copy dbsize debug decr decrby del discard dump echo',
  'eval eval_ro evalsha evalsha_ro exec exists expire expireat expiretime failover fcall fcall_ro flushall flushdb',
  'function geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch',
  'geosearchstore get getbit getdel getex getrange getset hdel hello hexists hexpire hexpireat hexpiretime hget hgetall',
  'hincrby hincrbyfloat hkeys hlen hmget hmset hpersist hpexpire hpexpireat hpexpiretime hpttl hrandfield hscan hset',
  'hsetnx hstrlen httl hvals incr incrby incrbyfloat info keys lastsave latency lcs lindex linsert llen lmove lmpop',
  'lolwut lpop lpos lpush lpushx lrange lrem lset ltrim memory mget migrate module monitor move mset msetnx multi object',
  'persist pexpire pexpireat pexpiretime pfadd pfcount pfdebug pfmerge pfselftest ping psetex psubscribe psync pttl',
  'publish pubsub punsubscribe quit randomkey readonly readwrite rename renamenx replconf replicaof reset restore',
  'restore-asking role rpop rpoplpush rpush rpushx sadd save scan scard script sdiff sdiffstore select sentinel set setbit',
  'setex setnx setrange shutdown sinter sintercard sinterstore sismember slaveof slowlog smembers smismember smove sort',
  'sort_ro spop spublish srandmember srem sscan ssubscribe strlen subscribe substr sunion sunionstore sunsubscribe swapdb',
  'sync time touch ttl type unlink unsubscribe unwatch wait waitaof watch xack xadd xautoclaim xclaim xdel xgroup xinfo',
  'xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim zadd zcard zcount zdiff zdiffstore zincrby zinter',
  'zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore',
  'zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore',
  'zrevrank zscan zscore zunion zunionstore',
].flatMap((line) => line.split(' '));

/** By the spellings in which clients write them. */
const bySpelling: ReadonlyMap<string, string> = new Map(
  KNOWN.flatMap((name) => [
    [name.toUpperCase(), name],
    [name, name],
  ]),
);

/** Bytes of a command's name that are looked at; longer names are not known. */
export const MAX_NAME = 24;

/** The known name of a command, in lower case; `other` for all others. */
export function knownCommand(text: string): string {
  return bySpelling.get(text) ?? bySpelling.get(text.toUpperCase()) ?? 'other';
}

/** After these the server says what it wants, when it wants: answers are no longer the commands' own. */
const FEEDS: ReadonlySet<string> = new Set([
  ...['subscribe', 'psubscribe', 'ssubscribe', 'unsubscribe', 'punsubscribe', 'sunsubscribe'],
  ...['monitor', 'sync', 'psync'],
]);

export function beginsFeed(command: string): boolean {
  return FEEDS.has(command);
}

/** Commands that may wait on purpose: how long they took says nothing about the server. */
const WAITING: ReadonlySet<string> = new Set([
  ...['blmove', 'blmpop', 'blpop', 'brpop', 'brpoplpush', 'bzmpop', 'bzpopmax', 'bzpopmin'],
  ...['xread', 'xreadgroup', 'wait', 'waitaof', 'failover'],
]);

export function mayWait(command: string): boolean {
  return WAITING.has(command);
}

/** First words of error answers. Scripts may make up others, which are `other`. */
const ERRORS = [
  'ERR WRONGTYPE NOAUTH NOPERM WRONGPASS MOVED ASK CLUSTERDOWN CROSSSLOT TRYAGAIN LOADING BUSY BUSYKEY BUSYGROUP NOGROUP',
  'READONLY MASTERDOWN NOSCRIPT EXECABORT OOM MISCONF NOREPLICAS UNKILLABLE UNBLOCKED NOPROTO INPROG IOERR NOTBUSY',
  'NOMASTERLINK NOTREADY NOGOODSLAVE DENIED STALE NOQUORUM UNPAUSE NONEXT SYNTAX',
].flatMap((line) => line.split(' '));

const byWord: ReadonlyMap<string, string> = new Map(ERRORS.map((word) => [word, word]));

/** The known first word of an error answer; `other` for all others. */
export function knownError(word: string): string {
  return byWord.get(word) ?? 'other';
}
