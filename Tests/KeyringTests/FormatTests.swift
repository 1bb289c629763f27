import Testing

@testable import Keyring

/// A keyring and a wrapped key that were made once, by format 1. They have to open for ever: who changes these bytes
/// changes the format.
@Suite struct FormatTests {
    /// A key file's slot (32 times 7) and a passphrase's.
    static let configuration = bytes(
        """
        4c5454524c4f434b0100000001000000854b2727269b1c3ef716d75347c9f25b00d2496b000000000000000004006b65
        707402000200004800519c094f14f1e2d102a225a3cc43b3874ab8eae6a735e6124f1fa9b841677c0f83b22c17941464
        e1cb5557f66bfdf593026b1b1471ae926fe13db8f9c966a34eeaee04339a40178c012000010000000000000000008000
        00000000902706c10bbd1ecf86be68ee5f5245504800e3aa9dd1afb575c7ae19cac5f13b8df17b4dfed3a1a2859bd766
        2b397ed2fd884685df53c0581d965d86377959772bf343907b49433d00c785667e82baf571f42d1307e51193fbdb8b3f
        03661e5ec8e24eba00eaf17d7e0bea55580f2e4d93d82934a703f9914de2e794f16b613579d0047a89a3104e6b9aaf48
        0401e62091a420a9f822eaf08f50
        """)

    /// Versions 1 to 5: compromised, disabled, destroyed, enabled, primary.
    static let lifecycle = bytes(
        """
        9fd07eaf9c964a35e90c4e1f8e6058f40bd6fbe9c3dbe0af61954c13aa31c23339570c9cb065b6d143284a507b8ecf76
        5baa4b6e269fe5fc5a2640ff0ce29be94ec250ab8566f6b0e3cbe1503690bea35cbaf4f9f3338d52631748f4793aaa40
        913b696b4e6162b49e2dc87197bd6c08962e18d51c8fb39727fc6a05da27cec6bba1af7002fa7af1d938a0a3240b48d6
        43a260c12f7a13f0c13c186d6dfe2d54a72496cbbb671674b61b5809e1ce1e487f65e27eb44d631358d327bb5244593f
        c2a0c0bce099797289fab611b593df22a2aa32e4cb31be60434ddb274621bc5bdac1c6ad80a4ac3c62b707c5ac265204
        b72347e7c7f7c72728cdc7c82d7d84e420123205d9ecba8504c6ecb302eae9a1b47e4f2d5bdf4c2a2d9fb585a3b97d83
        14a987c7a46b9ee2fe62c97503d5f539d35881e1f7bcc1d2b73113e0027894551bf8fa66a46c23f52138a22f39d475da
        daa299721ee24d328720dcbb4b2cfbbf459b148fa33838337f5dd8c33c5bebae98d4946d6770d008c9bbe493b72b60ea
        a77957e237274e9bade9d4ca9d5f0203c83a3985356588e0e751e2eef909d6f5968a9b12e1f9b80f03c0c4d66e2c7210
        85df8e9f09930e9f132c7a8d89f866fa5076f079d1d7f85674f2f628ae478a6eeffdb4f7b5b83d056845a5ce9d500c64
        bd59596b98105687b84d35ca619e3f14e0c0f24eb6756cd12dd8093c1ed245a51dc0ff6da2e857a226a6cdbb820ff012
        fc55f3b020a6263e0184431c1975f4821bd94f2d604a72760594ed62c29b3f0b522b7c02bf9a8fe1410122dc92f97281
        df4de0554739b2de9858d49ed3cdb5c3a46d108071d50c804e380679024dec28a0ad32c6fdf40ede7a69de6991b68d78
        08496c5cfaecce2d218dbaa3c0125dda922598ccbde60ed72f4a06c63498d8a790543a23fd7c9fb7a045c27a819d50f2
        ab6bda9bf5c1cff86db51b628dbe3ddb1c
        """)

    /// The bytes 0 to 31 under version 5.
    static let wrapped = bytes(
        """
        876881affbf5f8edde6ff3a2a64a5d71145fdae00fd5e00fe68064e8f3f8ea69bf451afc2fa4be1991464f47969a5889
        79005a1a8c04fc2e1c72a64519eba6e6797c6c9b7f7eaf1c2ebcb192b432a0900ebf1c6b1da6b100078dd583ebc08462
        b05f68ce421d369d
        """)

    @Test(arguments: [false, true])
    func `the kept keyring opens`(byPassphrase: Bool) throws {
        let service: any KeyService =
            byPassphrase ? try passphrase("correct horse battery staple") : PlainKeyService()
        let keyring = try unlock(Self.configuration, Self.lifecycle, with: service)
        #expect(keyring.name == "kept" && keyring.created == start)
        #expect(keyring.storeID.description == "854b2727-269b-1c3e-f716-d75347c9f25b")
        #expect(keyring.slots.map(\.kind) == [.keyfile, .passphrase])
        let lifecycle = keyring.lifecycle
        #expect(lifecycle.versions.map(\.state) == [.compromised, .disabled, .destroyed, .enabled, .primary])
        #expect(lifecycle.versions.map(\.created) == [0, 1, 2, 3, 4].map(day))
        #expect(lifecycle.versions.map(\.retired) == [day(1), day(2), day(3), day(4), nil])
        #expect(lifecycle[version(1)]?.reason == "laptop lost" && lifecycle[version(3)]?.destroyAt == day(12))
        #expect(lifecycle.minDecryption == version(1) && lifecycle.minEncryption == version(4))
        #expect(lifecycle.deletionAllowed && lifecycle.autoRotatePeriod == 86_400 && lifecycle.lastRotation == day(4))
        let context = Array("content 12".utf8)
        #expect(try keyring.unwrapped(Self.wrapped, version(5), context: context) == (0..<32).map { UInt8($0) })
    }

    @Test func `the kept keyring does not open with a wrong passphrase`() throws {
        #expect(throws: KeyringError.wrongSecret) {
            try unlock(Self.configuration, Self.lifecycle, with: try passphrase("correct horse battery stable"))
        }
    }

    @Test func `what format 1 has written changes into format 2`() throws {
        let keyring = try unlock(Self.configuration, Self.lifecycle, with: PlainKeyService())
        // The passphrase's slot cannot follow to a new root key by itself.
        #expect(throws: KeyringError.self) {
            try keyring.rekeyed(0, .removed, opener: PlainKeyService(), now: day(5))
        }
        let changed = try keyring.rekeyed(1, .removed, opener: PlainKeyService(), now: day(5))
        #expect(changed.configurationBytes[8..<12].elementsEqual([2, 0, 0, 0]))
        let opened = try unlock(changed.configurationBytes, changed.lifecycleBytes(), with: PlainKeyService())
        #expect(opened.slots.map(\.kind) == [.keyfile] && opened.name == "kept" && opened.lineage == nil)
        #expect(try opened.unwrapped(Self.wrapped, version(5), context: Array("content 12".utf8)).count == 32)
        // Another slot beside the old ones needs none of them.
        let more = try keyring.addingSlot(PlainKeyService(9))
        for service in [PlainKeyService(), PlainKeyService(9)] {
            #expect(throws: Never.self) { try unlock(more, Self.lifecycle, with: service) }
        }
        #expect(throws: Never.self) {
            try unlock(more, Self.lifecycle, with: try passphrase("correct horse battery staple"))
        }
    }

    /// Magic, format, suite, store id, creation: where whoever identifies a store looks.
    @Test func `a configuration begins as the format page says`() {
        #expect(Self.configuration.prefix(8).elementsEqual("LTTRLOCK".utf8))
        #expect(Self.configuration[8..<16].elementsEqual([1, 0, 0, 0, 1, 0, 0, 0]))
    }
}
