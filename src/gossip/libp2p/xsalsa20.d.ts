declare module "xsalsa20" {
  interface Cipher {
    update(input: Uint8Array): Uint8Array;
    finalize(): void;
  }
  interface CreateCipher {
    (nonce: Uint8Array, key: Uint8Array): Cipher;
    readonly NONCEBYTES: number;
    readonly KEYBYTES: number;
  }
  const createCipher: CreateCipher;
  export default createCipher;
}
