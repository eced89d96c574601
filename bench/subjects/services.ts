/** How many services a proxy knows where it reads HTTP: as many as a host of a usual site calls. */
const SERVICES = 100;

/** A service that nobody calls: it is there to be told from the one that is measured. */
interface OtherService {
  readonly name: string;
  /** At which nothing stands. */
  readonly address: string;
}

/** The services beside the one that is measured. */
export const otherServices: readonly OtherService[] = Array.from({ length: SERVICES - 1 }, (_, index) => ({
  name: `service-${index}`,
  address: `192.0.2.${index + 1}`,
}));
