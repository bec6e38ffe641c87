// Drives WebTorrent: a JSON list of method and arguments a line in, a JSON object a line out.
//
//     node webtorrent.mjs PACKAGE HOST
//
// PACKAGE is the folder of the installed package.

import { createInterface } from 'node:readline'
import net from 'node:net'
import { join } from 'node:path'

const [folder, host] = process.argv.slice(2)
const { default: WebTorrent } = await import(join(folder, 'index.js'))

// WebTorrent has no setting for the address on which it listens.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port, host }, ...rest)
}

const client = new WebTorrent({
  dht: false, lsd: false, natPmp: false, natUpnp: false, tracker: false, utp: false, utPex: false
})
const listening = new Promise(resolve => client.once('listening', resolve))
const waiting = new Set()
client.on('error', error => { throw error })

const methods = {
  version: () => WebTorrent.VERSION,
  listen: async () => { await listening; return client.torrentPort },
  add: (dump, path, peers) => {
    const torrent = client.add(Buffer.from(dump, 'base64'), { path })
    waiting.add(torrent)
    torrent.on('done', () => waiting.delete(torrent))
    torrent.on('infoHash', () => peers.forEach(peer => torrent.addPeer(peer)))
    return new Promise(resolve => torrent.on('ready', () => resolve(true)))
  },
  complete: () => waiting.size === 0,
  progress: () => client.torrents.map(torrent => [torrent.progress, torrent.numPeers])
}

for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...words] = JSON.parse(line)
  console.log(JSON.stringify({ result: await methods[method](...words) }))
}
process.exit()
