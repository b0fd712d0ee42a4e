import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';

export type Mail = { readonly from: string; readonly to: readonly string[]; readonly text: string };

/** A mail server on loopback that keeps what it is given, or answers every mail with `refuse()`'s error. */
export class MailServer {
  readonly mails: Mail[] = [];
  readonly url: string;
  refuse: () => Error | undefined = () => undefined;
  readonly #server: SMTPServer;

  private constructor(server: SMTPServer) {
    this.#server = server;
    this.url = `smtp://127.0.0.1:${(server.server.address() as AddressInfo).port}`;
  }

  /** With `login`, only whoever knows it may send. */
  static async start(login?: { readonly user: string; readonly password: string }): Promise<MailServer> {
    let self: MailServer | undefined;
    const server = new SMTPServer({
      disabledCommands: ['STARTTLS', ...(login === undefined ? ['AUTH'] : [])],
      authOptional: login === undefined,
      allowInsecureAuth: true,
      onAuth: ({ username, password }, _, done) =>
        username === login?.user && password === login?.password
          ? done(null, { user: username })
          : done(new Error('who is that?')),
      onData: (stream, { envelope }, done) => {
        const chunks: Buffer[] = [];
        stream.on('data', (c: Buffer) => chunks.push(c));
        stream.on('end', () => {
          const no = self?.refuse();
          if (no !== undefined) return done(no);
          const from = envelope.mailFrom === false ? '' : envelope.mailFrom.address;
          self?.mails.push({
            from,
            to: envelope.rcptTo.map((r) => r.address),
            text: Buffer.concat(chunks).toString('utf8'),
          });
          done();
        });
      },
    });
    server.on('error', () => {}); // a client that breaks off
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    self = new MailServer(server);
    return self;
  }

  stop(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}
