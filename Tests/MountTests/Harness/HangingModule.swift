import Glibc

/// A PKCS#11 module whose every call hangs until the port that it listens to is closed.
enum HangingModule {
    /// - Returns: Its path.
    static func make(_ workspace: Workspace, _ port: SilentPort) throws -> String {
        let source = """
            #include <arpa/inet.h>
            #include <unistd.h>
            unsigned long C_GetFunctionList(void **list) {
                struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(\(port.number))};
                char byte;
                int descriptor = socket(AF_INET, SOCK_STREAM, 0);
                place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                (void)list;
                if (!connect(descriptor, (struct sockaddr *)&place, sizeof place)) (void)!read(descriptor, &byte, 1);
                close(descriptor);
                return 5; /* CKR_GENERAL_ERROR */
            }
            """
        try put(source, workspace("hanging.c"))
        try workspace.done(["cc", "-shared", "-fPIC", "-o", workspace("hanging.so"), workspace("hanging.c")])
        return workspace("hanging.so")
    }
}
