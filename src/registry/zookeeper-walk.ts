import type { ServersetTree } from './serverset-tree.ts';
import type { Operation, PathAnswer } from './zookeeper-protocol.ts';

/** Questions that are under way at once. */
const MAX_IN_FLIGHT = 64;

interface Asked {
  ask(operation: Operation, path: string): Promise<PathAnswer>;
  close(why: Error): void;
}

interface Question {
  readonly operation: Operation;
  readonly path: string;
  /** Everything below is looked at again, and not only what is new. */
  readonly deep: boolean;
}

/**
 * Reads a tree of serversets over one connection, and follows its watches. Each question about a path waits at most once,
 * so the queue is bounded as the tree is. ZooKeeper answers in the order of the questions: the last answer is the newest.
 */
export class ServersetWalk {
  readonly #connection: Asked;
  readonly #tree: ServersetTree;
  readonly #progress: () => void;
  readonly #queue = new Map<string, Question>();
  #inFlight = 0;
  #idle: (() => void)[] = [];

  /** `progress` is called after each answer and change. */
  constructor(connection: Asked, tree: ServersetTree, progress: () => void) {
    this.#connection = connection;
    this.#tree = tree;
    this.#progress = progress;
  }

  /** Looks at everything; resolves when that is done, and never when the connection ends before. */
  compare(): Promise<void> {
    this.#tree.begin();
    const done = new Promise<void>((resolve) => this.#idle.push(resolve));
    for (const path of this.#tree.roots) this.#put({ operation: 'getChildren', path, deep: true });
    return done;
  }

  /** A watch fired. */
  changed(change: 'created' | 'deleted' | 'data' | 'children', path: string): void {
    if (change === 'data') {
      if (this.#tree.knowsMember(path)) this.#put({ operation: 'getData', path, deep: false });
    } else if (change === 'deleted' && !this.#tree.roots.includes(path)) {
      this.#tree.absent(path);
      this.#progress();
    } else if (this.#tree.knows(path)) this.#put({ operation: 'getChildren', path, deep: false });
  }

  #put(question: Question): void {
    const key = `${question.operation} ${question.path}`;
    const deep = question.deep || this.#queue.get(key)?.deep === true;
    this.#queue.set(key, { ...question, deep });
    this.#send();
  }

  #send(): void {
    for (const [key, question] of this.#queue) {
      if (this.#inFlight >= MAX_IN_FLIGHT) return;
      this.#queue.delete(key);
      this.#inFlight++;
      this.#connection
        .ask(question.operation, question.path)
        .then((answer) => this.#take(question, answer))
        // A connection that ended says so itself; anything else is ours and ends it.
        .catch((error: unknown) => this.#connection.close(error as Error));
    }
  }

  #take({ operation, path, deep }: Question, answer: PathAnswer): void {
    this.#inFlight--;
    switch (answer.kind) {
      case 'children': {
        const { paths, members } = this.#tree.children(path, answer.names);
        for (const child of paths) {
          if (deep || child.isNew) this.#put({ operation: 'getChildren', path: child.path, deep });
        }
        for (const child of members) {
          if (deep || child.isNew) this.#put({ operation: 'getData', path: child.path, deep: false });
        }
        break;
      }
      case 'data':
        this.#tree.member(path, answer.bytes);
        break;
      case 'there':
        this.#put({ operation: 'getChildren', path, deep: true });
        break;
      case 'absent':
        this.#tree.absent(path);
        // Where there is no path, only this question leaves a watch that tells when it comes into being.
        if (operation === 'getChildren' && this.#tree.roots.includes(path)) {
          this.#put({ operation: 'exists', path, deep: false });
        }
        break;
      case 'refused':
        this.#tree.refused(path, answer.why);
    }
    this.#progress();
    this.#send();
    if (this.#inFlight > 0 || this.#queue.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
