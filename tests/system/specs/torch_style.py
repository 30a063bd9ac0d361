# A program that finds its peers as torch programs do: through the variables of node 0.
import os
import socket
import time

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
node0 = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    server = socket.create_server(node0)
    print(sorted(server.accept()[0].recv(9).decode() for _ in range(world - 1)))
else:
    for again in range(600):
        try:
            link = socket.create_connection(node0)
            break
        except OSError:
            time.sleep(0.05)
    link.sendall(f"{rank}@{os.environ['NODE_RANK']}".encode())
