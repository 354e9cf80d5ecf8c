"""The policy daemon: may this recipient be accepted from this client now?"""
