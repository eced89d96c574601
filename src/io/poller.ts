import { MeshError } from '../model/errors.ts';
import {
  EINTR,
  EPOLL_CLOEXEC,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
} from './constants.ts';
import { Deadlines } from './deadlines.ts';
import { describeErrno } from './failure.ts';
import { epollEventLayout } from './layout.ts';
import * as libc from './libc.ts';
import { Outbox } from './outbox.ts';

/** Descriptors taken from the kernel with one call. */
const BATCH = 256;
/** Batches handled in one turn of the loop while every one of them was full; then timers and others get their turn. */
const BATCHES_PER_TURN = 4;
/** Size of the one read buffer. With 256 KiB bulk costs a quarter more CPU, beyond 1 MiB nothing is gained. */
const READ_BUFFER_BYTES = 1 << 20;
/** Views of the read buffer that are kept, by their length: small messages are of few lengths, and come again. */
const VIEWS = 64;
const UV_POLL = 8;
const UV_READABLE = 1;

/** Readable, level-triggered: for listening sockets. */
export const INTEREST_ACCEPT = EPOLLIN;
/**
 * Everything, edge-triggered: for connections. Registered once and never changed: pausing and backpressure are
 * remembered by the socket, so that no request costs an epoll_ctl. EPOLLPRI tells of urgent data, at whose mark
 * `recv` returns short.
 */
export const INTEREST_STREAM = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET) >>> 0;

/** What a registered descriptor stands for. */
export interface PollTarget {
  /** @param events the kernel's EPOLL… bits. */
  ready(events: number): void;
  /** `ready` threw this. The error itself is rethrown from the loop; here only the connection is given up. */
  failed(error: unknown): void;
}

/**
 * One epoll set, watched by Node's own event loop. Ready descriptors are handled in batches, from one callback.
 *
 * The kernel reuses descriptor numbers at once, also within a batch: an event carries the generation of the
 * registration it was made for, and is dropped when that is over.
 * Works in a process's main thread only (`uv_default_loop` is that thread's).
 */
export class Poller {
  /** Bounds on time of this poller's sockets, checked every 100 ms. */
  readonly deadlines = new Deadlines();
  /** The buffer into which every socket of this poller reads: valid until the next read. */
  readonly readBuffer = new Uint8Array(new ArrayBuffer(READ_BUFFER_BYTES));
  readonly #views: (Uint8Array | undefined)[] = new Array(VIEWS).fill(undefined);
  /** Small writes that wait for the end of the batch. */
  readonly outbox = new Outbox();
  /** Bytes that all sockets of this poller hold for slow readers. */
  heldBytes = 0;
  /** Events dropped because their registration was over. */
  staleEvents = 0;

  /** -1 once closed: the number may be somebody else's then. */
  #epoll: number;
  readonly #layout = epollEventLayout(process.arch);
  readonly #events: Uint8Array;
  readonly #eventsView: DataView;
  readonly #event: Uint8Array;
  readonly #eventView: DataView;
  readonly #handle: unknown;
  readonly #callback: libc.Pointer;
  readonly #targets: (PollTarget | undefined)[] = [];
  readonly #generations: number[] = [];
  #tasks: (() => void)[] = [];
  #inBatch = false;
  #flushScheduled = false;
  #closed = false;

  constructor() {
    const { size } = this.#layout;
    this.#events = new Uint8Array(size * BATCH);
    this.#eventsView = new DataView(this.#events.buffer);
    this.#event = new Uint8Array(size);
    this.#eventView = new DataView(this.#event.buffer);
    this.#epoll = libc.epollCreate(EPOLL_CLOEXEC);
    if (this.#epoll < 0) throw systemError('epoll_create1');
    this.#handle = libc.allocateMemory(libc.uvHandleSize(UV_POLL));
    this.#callback = libc.registerPollCallback(() => this.#turn());
    if (
      libc.uvPollInit(libc.uvDefaultLoop(), this.#handle, this.#epoll) !== 0 ||
      libc.uvPollStart(this.#handle, UV_READABLE, this.#callback) !== 0
    ) {
      throw new MeshError('system', 'kernel', 'libuv does not watch the epoll set');
    }
  }

  /** The first `count` bytes of the read buffer. */
  readBytes(count: number): Uint8Array {
    const known = this.#views[count % VIEWS];
    if (known !== undefined && known.length === count) return known;
    const view = this.readBuffer.subarray(0, count);
    this.#views[count % VIEWS] = view;
    return view;
  }

  /** Watches a descriptor. Throws a MeshError when the kernel refuses (ENOSPC, ENOMEM, a descriptor that is none). */
  register(fd: number, interest: number, target: PollTarget): void {
    const generation = ((this.#generations[fd] ?? 0) + 1) >>> 0;
    this.#growTo(fd);
    this.#generations[fd] = generation;
    if (this.#control(EPOLL_CTL_ADD, fd, interest) < 0) throw systemError('epoll_ctl');
    this.#targets[fd] = target;
  }

  /** Changes the interest. With the same one again, an edge-triggered descriptor that is ready is reported anew. */
  modify(fd: number, interest: number): void {
    this.#control(EPOLL_CTL_MOD, fd, interest);
  }

  /** Stops watching a descriptor that stays open. */
  unregister(fd: number): void {
    this.forget(fd);
    this.#control(EPOLL_CTL_DEL, fd, 0);
  }

  /** Stops watching a descriptor that is closed next: closing takes it out of the set, so no call is made. */
  forget(fd: number): void {
    this.#targets[fd] = undefined;
    this.#generations[fd] = ((this.#generations[fd] ?? 0) + 1) >>> 0;
  }

  /**
   * Runs `task` once, at the end of the current batch of ready descriptors, or, outside of a batch, in a microtask.
   * What became ready together can so be handled together, for example in one write.
   */
  afterBatch(task: () => void): void {
    this.#tasks.push(task);
    if (this.#inBatch || this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      this.#runTasks();
    });
  }

  /** Stops watching. Descriptors that are still registered stay open: they belong to their targets. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.deadlines.close();
    libc.uvPollStop(this.#handle);
    const closeCallback = libc.registerCloseCallback(() => {
      // libuv is done with the memory; the callbacks are not released from within one of them.
      setImmediate(() => {
        libc.unregisterCallback(closeCallback);
        libc.unregisterCallback(this.#callback);
        libc.freeMemory(this.#handle);
      });
    });
    libc.uvClose(this.#handle, closeCallback);
    libc.close(this.#epoll);
    this.#epoll = -1;
  }

  #control(operation: number, fd: number, interest: number): number {
    const { events, descriptor, generation } = this.#layout;
    this.#eventView.setUint32(events, interest, true);
    this.#eventView.setUint32(descriptor, fd, true);
    this.#eventView.setUint32(generation, this.#generations[fd] ?? 0, true);
    return libc.epollCtl(this.#epoll, operation, fd, this.#event);
  }

  /** Keeps both tables dense: an array with holes is looked up several times slower. */
  #growTo(fd: number): void {
    while (this.#targets.length <= fd) {
      this.#targets.push(undefined);
      this.#generations.push(0);
    }
  }

  /** Called by libuv. An exception that left this function would silence every registered callback for good. */
  #turn(): void {
    this.#inBatch = true;
    this.outbox.begin();
    try {
      for (let round = 0; round < BATCHES_PER_TURN && !this.#closed; round++) {
        const count = libc.epollWait(this.#epoll, this.#events, BATCH, 0);
        if (count < 0) {
          const errno = libc.errno();
          if (errno === EINTR) continue;
          throw new MeshError('system', 'kernel', describeErrno('epoll_wait', errno));
        }
        for (let i = 0; i < count && !this.#closed; i++) this.#dispatch(i * this.#layout.size);
        this.outbox.flush();
        if (this.#tasks.length > 0) this.#runTasks();
        if (count < BATCH) break;
      }
    } catch (error) {
      rethrowFromLoop(error);
    }
    this.outbox.end();
    this.#inBatch = false;
  }

  #dispatch(offset: number): void {
    const view = this.#eventsView;
    const fd = view.getUint32(offset + this.#layout.descriptor, true);
    const target = this.#targets[fd];
    if (
      target === undefined ||
      view.getUint32(offset + this.#layout.generation, true) !== this.#generations[fd]
    ) {
      this.staleEvents++;
      return;
    }
    try {
      target.ready(view.getUint32(offset + this.#layout.events, true));
    } catch (error) {
      rethrowFromLoop(error);
      giveUp(target, error);
    }
  }

  #runTasks(): void {
    // A task may add tasks; they belong to the same turn.
    while (this.#tasks.length > 0) {
      const tasks = this.#tasks;
      this.#tasks = [];
      for (const task of tasks) {
        try {
          task();
        } catch (error) {
          rethrowFromLoop(error);
        }
      }
    }
  }
}

/** True for events after which reading cannot go on, or must look at the socket's error. */
export const EVENTS_BROKEN = EPOLLERR | EPOLLHUP;

function giveUp(target: PollTarget, error: unknown): void {
  try {
    target.failed(error);
  } catch (second) {
    rethrowFromLoop(second);
  }
}

function rethrowFromLoop(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}

function systemError(call: string): MeshError {
  return new MeshError('system', 'kernel', describeErrno(call, libc.errno()));
}
