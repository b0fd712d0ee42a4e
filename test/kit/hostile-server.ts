import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';

/** What a hostile server writes wherever it can: it must appear nowhere. */
export const WORDS = 'very-secret-words';

/** How a server misbehaves. `act` is called once for a connection: when it is made, or when a first request came. */
export type Manner = { readonly on: 'connection' | 'request'; readonly act: (socket: Socket, self: string) => void };

const head = (status: string, ...headers: string[]) =>
  `HTTP/1.1 ${status}\r\n${headers.map((h) => `${h}\r\n`).join('')}\r\n`;
const JSON_TYPE = 'content-type: application/json';
const PIECE = Buffer.alloc(1024 * 1024, WORDS);
const BOMB = gzipSync(Buffer.alloc(64 * 1024 * 1024));

// As fast as it is taken, until it is not.
function pour(socket: Socket, piece: Buffer | string): void {
  const more = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', more);
  more();
}

function drip(socket: Socket, text: string): void {
  const timer = setInterval(() => socket.write(text), 20);
  socket.on('close', () => clearInterval(timer));
}

/** Manners of servers that speak HTTP, or nothing at all. */
export const HTTP_MANNERS: Readonly<Record<string, Manner>> = {
  'accepts and says nothing': { on: 'connection', act: () => {} },
  'closes at once': { on: 'connection', act: (socket) => socket.destroy() },
  'closes after the request': { on: 'request', act: (socket) => socket.end() },
  'writes garbage': { on: 'request', act: (socket) => void socket.end(`${WORDS}\0\x01\xff\r\n\r\n`) },
  'writes garbage without end': { on: 'connection', act: (socket) => pour(socket, PIECE) },
  'writes headers without end': {
    on: 'request',
    act: (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      pour(socket, `x-a: ${WORDS}\r\n`.repeat(100));
    },
  },
  'writes headers drop by drop': {
    on: 'request',
    act: (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      drip(socket, 'x');
    },
  },
  'says nothing after its headers': {
    on: 'request',
    act: (socket) => void socket.write(head('200 OK', JSON_TYPE, 'content-length: 100')),
  },
  'writes its body drop by drop': {
    on: 'request',
    act: (socket) => {
      socket.write(head('200 OK', JSON_TYPE));
      drip(socket, ' ');
    },
  },
  'answers without end': {
    on: 'request',
    act: (socket) => {
      socket.write(head('200 OK', JSON_TYPE));
      pour(socket, PIECE);
    },
  },
  'refuses without end': {
    on: 'request',
    act: (socket) => {
      socket.write(head(`403 ${WORDS}`, JSON_TYPE));
      pour(socket, PIECE);
    },
  },
  'refuses with its words': {
    on: 'request',
    act: (socket) => {
      const body = `{"message":"${WORDS}"}<Error><Code>${WORDS} </Code></Error>`;
      socket.end(head(`500 ${WORDS}`, JSON_TYPE, `content-length: ${body.length}`) + body);
    },
  },
  'breaks off in the body': {
    on: 'request',
    act: (socket) => void socket.end(`${head('200 OK', JSON_TYPE, 'content-length: 1000')}{"a":"${WORDS}`),
  },
  'says more than it announced': {
    on: 'request',
    act: (socket) => void socket.end(`${head('200 OK', JSON_TYPE, 'content-length: 3')}{"a":"${WORDS}"}`),
  },
  'compresses a bomb': {
    on: 'request',
    act: (socket) => {
      socket.write(head('200 OK', JSON_TYPE, 'content-encoding: gzip', `content-length: ${BOMB.length}`));
      socket.end(BOMB);
    },
  },
  'writes a huge text': {
    on: 'request',
    act: (socket) => {
      socket.write(`${head('200 OK', JSON_TYPE)}{"a":"`);
      pour(socket, PIECE);
    },
  },
  'leads elsewhere': {
    on: 'request',
    act: (socket) => void socket.end(head('302 Found', `location: http://127.0.0.1:9/${WORDS}`, 'content-length: 0')),
  },
  'leads in a circle': {
    on: 'request',
    act: (socket, self) => void socket.end(head('307 Again', `location: ${self}/${WORDS}`, 'content-length: 0')),
  },
  'leads to a file': {
    on: 'request',
    act: (socket) => void socket.end(head('301 Moved', `location: file:///etc/${WORDS}`, 'content-length: 0')),
  },
};

/** Sends whoever asks to another address. */
export function leadingTo(url: string): Manner {
  const act = (socket: Socket) => void socket.end(head('302 Found', `location: ${url}/a`, 'content-length: 0'));
  return { on: 'request', act };
}

/** A server on loopback with one manner at a time. `open` are the connections that nobody ended. */
export class HostileServer {
  readonly url: string;
  readonly open = new Set<Socket>();
  connections = 0;
  manner: Manner = { on: 'connection', act: (socket) => socket.destroy() };
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async start(): Promise<HostileServer> {
    const connected = (socket: Socket) => self?.take(socket);
    const server = createServer(connected);
    let self: HostileServer | undefined;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    self = new HostileServer(server);
    return self;
  }

  take(socket: Socket): void {
    const { on, act } = this.manner;
    this.connections++;
    this.open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.open.delete(socket));
    if (on === 'connection') {
      socket.resume();
      act(socket, this.url);
    } else socket.once('data', () => act(socket.resume(), this.url));
  }

  stop(): void {
    for (const socket of this.open) socket.destroy();
    this.#server.close();
  }
}
