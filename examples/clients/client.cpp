// Receives the records of `emojax watch ... --tcp=5005`: c++ -O2 -o client client.cpp; ./client 5005
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int, char** words) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(std::atoi(words[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address)) return perror("connect"), 1;
    const char all[] = "GET 0\n";  // all records from seq 0 on
    if (write(server, all, strlen(all)) < 0) return 1;
    FILE* lines = fdopen(server, "r");
    char* line = nullptr;
    for (size_t size = 0; getline(&line, &size, lines) > 0;) {
        const char* found = strstr(line, "\"feedback\": ");  // a number or null, which becomes 0
        std::printf("%g\n", found ? std::strtod(found + 12, nullptr) : 0.0);
        std::fflush(stdout);
    }
}
