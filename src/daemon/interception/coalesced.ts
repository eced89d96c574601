/**
 * Makes of some work one that never runs twice at once: what is asked for while it runs is one more run, however often it
 * is asked for. The promise resolves when a run that began after the call is over. `work` must not reject.
 */
export function coalesced(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  let again = false;
  const run = async (): Promise<void> => {
    do {
      again = false;
      await work();
    } while (again);
    running = undefined;
  };
  return () => {
    again = true;
    running ??= run();
    return running;
  };
}
