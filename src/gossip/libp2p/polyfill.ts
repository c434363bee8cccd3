/** libp2p uses Promise.withResolvers, which Node 20 lacks; before its first import. */
if (!("withResolvers" in Promise)) {
  Object.defineProperty(Promise, "withResolvers", {
    configurable: true,
    writable: true,
    value<T>(this: PromiseConstructor) {
      let resolve: (value: T | PromiseLike<T>) => void = () => undefined;
      let reject: (reason?: unknown) => void = () => undefined;
      const promise = new this<T>((onDone, onFail) => {
        resolve = onDone;
        reject = onFail;
      });
      return { promise, resolve, reject };
    },
  });
}
